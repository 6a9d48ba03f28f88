"""Commands as a shell runs them."""

import pytest

from nextbuy.cli.app import main


@pytest.fixture
def run(capsys):
    """Run a command; gives its exit code, standard output and standard error."""

    def run_command(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return left.value.code, out, err

    return run_command
