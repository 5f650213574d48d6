"""Networks and bundles as files for other runtimes, reopened and compared."""
