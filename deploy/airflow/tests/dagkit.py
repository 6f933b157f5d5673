"""Names for DAG files of tests that Airflow 2.11 and 3 have in different places."""

from __future__ import annotations

from datetime import datetime, timedelta

try:
    from airflow.providers.standard.operators.bash import BashOperator
    from airflow.providers.standard.operators.empty import EmptyOperator
    from airflow.providers.standard.operators.python import PythonOperator
    from airflow.sdk import DAG, BaseOperator, task
except ImportError:
    from airflow import DAG
    from airflow.decorators import task
    from airflow.models.baseoperator import BaseOperator
    from airflow.operators.bash import BashOperator
    from airflow.operators.empty import EmptyOperator
    from airflow.operators.python import PythonOperator

START = datetime(2026, 1, 1)


class KubernetesPodOperator(BaseOperator):
    """Stands for the provider's operator of this name, which is not installed here: the arguments
    that are looked at are called the same and kept in the same attributes.
    """

    template_fields = ("namespace",)

    def __init__(
        self,
        *,
        namespace=None,
        cluster_context=None,
        cluster_name=None,
        full_pod_spec=None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.namespace = namespace
        self.cluster_context = cluster_context
        self.cluster_name = cluster_name
        self.full_pod_spec = full_pod_spec

    def execute(self, context):
        pass


class GKEStartPodOperator(KubernetesPodOperator):
    """A subclass, as providers and users have them."""


__all__ = [
    "DAG",
    "START",
    "BaseOperator",
    "BashOperator",
    "EmptyOperator",
    "GKEStartPodOperator",
    "KubernetesPodOperator",
    "PythonOperator",
    "datetime",
    "task",
    "timedelta",
]
