"""Runs once, as soon as its shard has it."""

from datetime import datetime

from airflow.sdk import DAG, task

with DAG(
    "hello.world",
    start_date=datetime(2026, 1, 1),
    schedule="@once",
    catchup=True,
    is_paused_upon_creation=False,
    tags=["example"],
):

    @task(pool="hello_pool")
    def greet() -> str:
        """Says where it is."""
        return "hello from an Airfleet shard"

    greet()
