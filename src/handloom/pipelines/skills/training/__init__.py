"""`handloom train vlmimic`: the skills of a table's tasks, learned, judged on held-out clips and run on a robot arm."""
