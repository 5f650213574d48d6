"""The report of a run: ``report.csv``, ``report.html`` and the thumbnails in it."""
