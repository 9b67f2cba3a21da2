"""Campaigns: many searches from one file on the cores of a machine."""

from __future__ import annotations

from qas.campaigns.campaign import Campaign, campaign, load_campaign
from qas.campaigns.study import Study, Task, load_study

__all__ = ["Campaign", "Study", "Task", "campaign", "load_campaign", "load_study"]
