"""The simulator: invented and recorded traffic, replayed over HTTP on the service, and the auditor of every answer.

It knows the service by its HTTP interface alone; only the auditor may also read the database, with SQL of its own.
"""
