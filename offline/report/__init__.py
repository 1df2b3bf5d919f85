"""The report: everything that is known about how well models hear, in one folder."""
