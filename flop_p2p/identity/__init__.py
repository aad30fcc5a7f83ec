"""Who is who: keys, members, signed revisions of a federation."""
