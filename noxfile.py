"""The light half of the tests on every Python that art supports: ``nox``.

Each session makes an environment with the client alone (`.[tinker]`, no torch), as
``make test-light`` does for one Python. A Python that is not on this machine is skipped, with a
line that says so; with ``--error-on-missing-interpreters``, as in CI, it is an error.
"""

import nox

nox.options.default_venv_backend = "venv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_existing_virtualenvs = True

PYTHONS = ["3.11", "3.12", "3.13"]


@nox.session(python=PYTHONS)
def light(session: nox.Session) -> None:
    """Run tests/light, or what is given behind ``--``."""
    requirements = nox.project.dependency_groups(nox.project.load_toml("pyproject.toml"), "test")
    session.install("--constraint", "constraints.txt", "--editable", ".[tinker]", *requirements)
    arguments = session.posargs or ["tests/light", "-n", "2"]
    session.run("python", "-m", "pytest", *arguments)
