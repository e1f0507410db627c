"""The operators: what a DAG asks of Exa once."""

from airflow_provider_exa.operators.listing import (
    ExaListMonitorRunResultsOperator,
    ExaListMonitorRunsOperator,
    ExaListMonitorsOperator,
)
from airflow_provider_exa.operators.triggering import ExaTriggerMonitorOperator
from airflow_provider_exa.operators.waiting import ExaWaitForMonitorRunsOperator

__all__ = [
    "ExaListMonitorRunResultsOperator",
    "ExaListMonitorRunsOperator",
    "ExaListMonitorsOperator",
    "ExaTriggerMonitorOperator",
    "ExaWaitForMonitorRunsOperator",
]
