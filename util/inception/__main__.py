"""``python -m util.inception``: fetch the Inception weights, or convert a file of them that is at hand."""
import os
import sys

from util.cli import Parser, path, run_command
from util.files import UserError
from util.inception import convert, weights


def parse(argv=None):
    """Read the command line."""
    parser = Parser(prog='python -m util.inception', description='Get the weights of the Inception network.')
    commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')
    fetch = commands.add_parser('fetch', help='download them (about 90 MB) and convert them')
    fetch.add_argument('--from', dest='source', choices=list(convert.SOURCES),
                       help='what to download (default: {})'.format(', or else '.join(convert.SOURCES)))
    files = commands.add_parser('convert', help='convert a file that is at hand')
    files.add_argument('file', metavar='FILE', type=path,
                       help='inception-2015-12-05.tgz, the classify_image_graph_def.pb in it, or '
                            'pt_inception-2015-12-05-6726825d.pth')
    files.add_argument('--no-verify', action='store_true',
                       help='take a file of another size or hash, from people that you trust; names and shapes must '
                            'be right all the same')
    for command in fetch, files:
        command.add_argument('--out', type=path, default=weights.PATH, metavar='NPZ',
                             help='the file to write (default: inception_model/inception-2015-12-05.npz)')
    return parser.parse_args(argv)


def main(argv=None):
    """The command line."""
    args = parse(argv)
    if args.command == 'convert':
        source = convert.convert(args.file, args.out, verify=not args.no_verify)
    elif _is_whole(args.out):
        print('{} is there already: nothing to do'.format(args.out))
        return
    else:
        source = convert.fetch(args.out, args.source)
    print('{}: {:,} bytes, made from: {}'.format(args.out, os.path.getsize(args.out), source))


def _is_whole(npz):
    """Whether the weights are there; what is there and no good is said."""
    if not os.path.exists(npz):
        return False
    try:
        _, origin = weights.read(npz)
    except UserError as error:
        reason = str(error)
    else:
        if origin.released:
            return True
        reason = '{} was made from: {}'.format(npz, origin.text)
    print('{}; it is made anew'.format(reason), file=sys.stderr, flush=True)
    return False


if __name__ == '__main__':
    sys.exit(run_command(main))
