"""PostgreSQL: the only package that knows psycopg and tenacity. Its errors are translated here, into ``errors.py``."""
