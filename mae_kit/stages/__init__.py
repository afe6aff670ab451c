"""Work of many command lines, each in a process of its own, that repeats nothing when it is begun again."""
