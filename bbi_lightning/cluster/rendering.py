"""From a job and a site to the text of a batch script: pure, so that it can be read before it is queued."""

from __future__ import annotations

import re
import shlex
from functools import lru_cache

import jinja2

from bbi_lightning.cluster.errors import ClusterError
from bbi_lightning.cluster.job import Job
from bbi_lightning.cluster.site import Site, template_folder


def render(job: Job, site: Site) -> str:
    """The batch script of a job on a site.

    Raises:
        ClusterError: the site cannot run such a job.
    """
    resources = job.resources.over(site.defaults)
    runtime: list[str] = []
    if resources.container and site.container:
        runtime = site.container.format(image=resources.container).split()
    elif resources.container:
        raise ClusterError(
            f"container={resources.container}, but the site {site.name} names no runtime: "
            "add container: 'apptainer exec --nv {image}' to its profile"
        )
    for name in (*site.environment, *job.environment):
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ClusterError(f"the environment's variable {name} must be letters, digits and '_'")
    return _template().render(
        job=job,
        site=site,
        resources=resources,
        gpus=_gpus(resources.gpus, site),
        notice=_notice(resources.seconds, site),
        environment={**site.environment, **job.environment},
        command=_folded([*runtime, *job.command]),
    )


def _gpus(count: int, site: Site) -> str | None:
    """sbatch's option for GPUs, the site's way."""
    if not count:
        return None
    kind = f"{site.gpu_type}:" if site.gpu_type else ""
    return f"--gres=gpu:{kind}{count}" if site.gpus_as == "gres" else f"--gpus-per-node={kind}{count}"


def _notice(limit: float | None, site: Site) -> int:
    """Seconds before the limit at which the job is told: a short job must not spend its time on leaving."""
    return site.notice if limit is None else min(site.notice, int(limit // 4))


def _folded(words: list[str], width: int = 100) -> str:
    """A command for the shell, on several lines where it is long."""
    lines, line = [], ""
    for word in map(shlex.quote, words):
        if line and len(line) + len(word) >= width:
            lines.append(line)
            line = ""
        line += f" {word}" if line else word
    return " \\\n    ".join([*lines, line])


@lru_cache(maxsize=1)
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(template_folder()),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # a shell script; what needs quoting is quoted by `quoted`
    )
    environment.filters["quoted"] = shlex.quote
    return environment.get_template("job.sh.j2")
