"""What all command lines do with errors."""
import argparse
import os
import signal
import sys

from util.files import UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like all others."""

    def error(self, message):
        raise UserError('{} (see --help)'.format(message))


def path(text):
    """The type of flags that are paths: make hands ``OUT=~/x`` on as it stands."""
    return os.path.expanduser(text)


def run_command(main, argv=None):
    """Call ``main(argv)`` and return its exit status; what is no bug of ours becomes one line on stderr."""
    try:
        status = main(argv) or 0
        sys.stdout.flush()  # here, and not at exit: the reader may have gone
        return status
    except UserError as error:
        print('error: {}'.format(error), file=sys.stderr)
        return 2
    except MemoryError as error:  # CuPy's is one, too
        print('error: not enough memory: {}'.format(' '.join(str(error).split())), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # the reader, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
