# shellcheck shell=bash
# All but those on jobs and services, which are made later.
grant project bucket repository topic subscription account
