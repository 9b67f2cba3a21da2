"""Agents that choose among many candidate circuits: candidates x points x surrogate x acquisition.

*Candidates* (`qas.agents.pool.candidates`) are the circuits of a pool, or new ones: decoded, changed, drawn. *Points*
(`qas.encoders.pools.points`) stand for them. A *surrogate* believes something of the value of every point, an
*acquisition* chooses by that. Searchers (`qas.agents.pool.searchers`) know points and values only: ask and tell.
"""

from qas.registry import Registry

SURROGATES = Registry(
    "surrogates",
    "surrogate",
    {
        "gp": "qas.agents.pool.gaussian_process:GaussianProcessSurrogate",
        "botorch": "qas.agents.pool.botorch:BotorchSurrogate",
        "dngo": "qas.agents.pool.dngo:DngoSurrogate",
    },
)
"""Surrogate name -> class; loaded on first use, because some need torch."""
ACQUISITIONS = Registry(
    "acquisitions",
    "acquisition",
    {
        "log-ei": "qas.agents.pool.acquisitions:LogExpectedImprovement",
        "level-set": "qas.agents.pool.acquisitions:LevelSet",
        "mean": "qas.agents.pool.acquisitions:Mean",
        "thompson": "qas.agents.pool.acquisitions:Thompson",
    },
)
"""Acquisition name -> class."""
