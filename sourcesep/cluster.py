"""Which machines train together, and which of them this one is: read from the environment variable TF_CONFIG."""

from __future__ import annotations

import json
import os

from data_gen import InputError
from sourcesep.config import Config


def is_cluster(config: Config) -> bool:
    """Returns whether several machines train together: --strategy=multi_worker, or auto where TF_CONFIG is set."""
    return config.strategy == "multi_worker" or (config.strategy == "auto" and "TF_CONFIG" in os.environ)


def machine_number(config: Config) -> int:
    """Returns the number of this machine in the cluster; 0 is the chief, and a machine that trains by itself.

    Raises InputError if --strategy=multi_worker finds no cluster in TF_CONFIG.
    """
    if not is_cluster(config):
        return 0
    try:
        tf_config = json.loads(os.environ["TF_CONFIG"])
        cluster, kind, index = tf_config["cluster"], tf_config["task"]["type"], int(tf_config["task"]["index"])
        workers = cluster["worker"]
        if not 0 <= index < len(cluster[kind]) or not all(":" in address for address in workers):
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise InputError(
            "--strategy=multi_worker reads the cluster from the environment variable TF_CONFIG, e.g. "
            '{"cluster": {"worker": ["host1:9901", "host2:9901"]}, "task": {"type": "worker", "index": 0}}'
        ) from None
    return index if kind == "chief" else index + len(cluster.get("chief", ()))
