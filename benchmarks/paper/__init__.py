"""The paper's comparisons: tasks and methods as settings files, one command for each table."""
