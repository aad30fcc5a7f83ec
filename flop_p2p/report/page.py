"""`report.html`: one run on one page that opens offline, with its pictures inside."""

import base64
import html
import json
from pathlib import Path
from typing import Any

from flop_p2p import __version__
from flop_p2p.writing import write_text

PICTURES = {
    "topology.png": "Who exchanges with whom",
    "accuracy.png": "Accuracy over rounds: thin lines the sites, the thick one their mean",
    "partition.png": "Who has how much of which class",
}
STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #8884; }
th:first-child, td:first-child { text-align: left; }
img { max-width: 100%; background: white; } pre { overflow-x: auto; }
"""


def write_page(directory: Path, summary: dict[str, Any]) -> None:
    """Write `report.html` into a finished run from its summary, its settings and the pictures that lie there.

    Raises:
        RunError: it cannot be written.
    """
    where = f" on {summary['topology']}" if summary["topology"] else ""
    title = html.escape(f"{summary['method']}{where}: {summary['sites']} hospitals, {summary['rounds']} rounds")
    accuracy = summary["metrics"]["accuracy"]
    verdict = (
        f"On their own test patients the hospitals' models are right for {100 * accuracy['mean']:.1f} % on average; "
        f"{summary['worst_site']} fares worst with {100 * accuracy['min']:.1f} %. The busiest participant sent and "
        f"received {summary['bytes']['busiest_site'] / 1e6:,.1f} MB."
    )
    parts = [
        f"<h1>{title}</h1><p>{html.escape(verdict)}</p>",
        _sites(summary),
        *(_picture(directory / name, caption) for name, caption in PICTURES.items() if (directory / name).exists()),
        f"<h2>Settings</h2><pre>{html.escape((directory / 'config.toml').read_text(encoding='utf-8'))}</pre>",
        f"<h2>Summary</h2><pre>{html.escape(json.dumps(summary, indent=2))}</pre>",
        f"<p>flop-p2p {__version__}</p>",
    ]
    head = (
        f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{html.escape(title)}</title>"
    )
    body = "\n".join(parts)
    page = f"<!doctype html><html lang='en'><head>{head}<style>{STYLE}</style></head><body>{body}</body></html>\n"
    write_text(directory / "report.html", page)


def _sites(summary: dict[str, Any]) -> str:
    """A table with a row a site and a column a figure."""
    figures = summary["metrics"]
    header = "".join(f"<th>{html.escape(name.replace('_', ' '))}</th>" for name in figures)
    rows = [f"<tr><th>hospital</th>{header}</tr>"]
    for site in figures["accuracy"]["per_site"]:
        cells = "".join(f"<td>{_figure(figures[name]['per_site'][site])}</td>" for name in figures)
        rows.append(f"<tr><td>{html.escape(site)}</td>{cells}</tr>")
    cells = "".join(f"<td><b>{_figure(figures[name]['mean'])}</b></td>" for name in figures)
    rows.append(f"<tr><td><b>mean</b></td>{cells}</tr>")
    return f"<table>{''.join(rows)}</table>"


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _picture(path: Path, caption: str) -> str:
    data = base64.b64encode(path.read_bytes()).decode("ascii")
    return f"<h2>{caption}</h2><img alt='{caption}' src='data:image/png;base64,{data}'>"
