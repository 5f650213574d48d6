"""From a case to a label map, and from a folder of cases to results and a report."""
