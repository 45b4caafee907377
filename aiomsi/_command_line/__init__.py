"""The commands of `aiomsi`: a thin way of calling the library. Needs the extra `cli`."""
