"""Steering measured: arms × strengths × texts, scored without a judge or with one."""
