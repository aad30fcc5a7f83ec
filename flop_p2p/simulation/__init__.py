"""Simulation of many sites on one machine: the synchronous engine and its run directories."""

from flop_p2p.simulation.engine import RoundReport, Simulation
from flop_p2p.simulation.methods import METHODS, Method
from flop_p2p.simulation.run import load_data, run_simulation

__all__ = ["METHODS", "Method", "RoundReport", "Simulation", "load_data", "run_simulation"]
