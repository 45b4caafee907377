"""Adapters: each gives a `TokenProvider` the shape in which another library asks for tokens.

An adapter never closes the provider, which others use too; only the one for Redis runs a task of its own. Each is a
module, named after the library that it is for, and imported by that name: `aiomsi.adapters.httpx`.
"""
