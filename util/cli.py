"""What all command lines do with errors."""
import argparse
import os
import sys

from util.files import UserError


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors are one line, like all others."""

    def error(self, message):
        raise UserError('{} (see --help)'.format(message))


def run_command(main, argv=None):
    """Call ``main(argv)`` and return its exit status; a UserError becomes one line on stderr and status 2."""
    try:
        return main(argv) or 0
    except UserError as error:
        print('error: {}'.format(error), file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, such as head, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
