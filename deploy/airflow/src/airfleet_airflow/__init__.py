"""What Airfleet adds to a shard's Airflow.

Guardrails (`policy`, loaded by Airflow itself), smoothed schedules (`smoothing`) and parsing of one
DAG of a file (`parsing`). Importing this package imports nothing else: Airflow loads the policies
in every process that it starts.
"""

__version__ = "0.1.0"
