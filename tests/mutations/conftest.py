collect_ignore_glob = ["*.py"]  # `run.py` is started by hand
