"""A copy of what make reads, with programs that only note how they were called."""
import os
import pathlib
import shlex
import shutil
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
SETTINGS = ['default', 'A', 'B', 'C', 'D', 'E', 'F']
METHODS = list(yaml.safe_load((ROOT / 'configs' / 'methods.yml').read_text()))
SWEEPS = ['settings', 'methods', 'grid', 'resnet', 'stl10', 'imagenet', 'bssn', 'n-dis', 'critic']
TARGETS = ['help', 'install', 'onednn', 'normalize', *('setting-' + row for row in SETTINGS), *SWEEPS, 'table',
           'figures', 'report', 'timing', 'inception', 'scorer', 'test', 'test-kernels', 'test-plans', 'parity',
           'cpu-benchmark', 'gpu-check', 'lint', 'clean']

TOOLS = ['cp', 'echo', 'env', 'find', 'flock', 'head', 'make', 'mkdir', 'nproc', 'rm', 'sed', 'sh', 'sleep', 'touch']

# Notes its arguments in ../calls, beside the copied tree; fails at setting $FAIL, and in module $FAIL_AT; makes
# environments by copying itself.
FAKE_PYTHON = '''#!/bin/sh
case "$*" in
    *as_uri*) printf 'file://%s/constraints.txt' "$PWD" | sed 's/ /%20/g'; exit ;;
    '-c '*) [ -z "$UNFIT" ]; exit ;;
    *'pip --version') exit ;;
    '-m venv'*) for folder; do :; done; mkdir -p "$folder/bin"; cp "$0" "$folder/bin/python"; exit ;;
    *--editable*) sleep 0.2; echo "$PIP_CONSTRAINT|$PIP_BUILD_CONSTRAINT" >>../constraints ;;
esac
echo "$*" >>../calls
case "$*" in *"--setting $FAIL"*) exit ${STATUS:-1} ;; "-m ${FAIL_AT:-nothing}"*) exit 1 ;; esac
'''


# What follows a run's command in a sweep: to diverge is not to fail
SWEPT = ' || [ $? -eq 3 ]'


class Tree:
    """A copy of what make reads, in a folder whose name has a blank, with a fake python3 and a fake nvidia-smi."""

    def __init__(self, folder):
        self.folder = folder / 'a copy'
        self.folder.mkdir()
        (self.folder / 'configs').mkdir()
        for name in ('Makefile', 'setup.py', 'constraints.txt', 'configs/methods.yml'):
            shutil.copy(ROOT / name, self.folder / name)
        self.bin = folder / 'bin'
        self.bin.mkdir()
        for path in filter(None, map(shutil.which, TOOLS)):  # and no others: a real Python must not be found
            (self.bin / os.path.basename(path)).symlink_to(path)
        self.command('python3', FAKE_PYTHON)
        self.driver('', status=9)

    def command(self, name, text):
        path = self.bin / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def driver(self, text, status=0):
        self.command('nvidia-smi', "#!/bin/sh\necho '{}'\nexit {}\n".format(text, status))

    def start(self, *arguments, **environment):
        environment = {'PATH': str(self.bin), 'FAIL': 'nothing', **environment}
        return subprocess.Popen(['make', *arguments], cwd=self.folder, env=environment, text=True,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def make(self, *arguments, status=0, **environment):
        """Run make, check its exit status, and return what it printed: (stdout, stderr)."""
        process = self.start(*arguments, **environment)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, out + err
        return out, err

    def runs(self, *arguments):
        """The words of each command line of train.py that make would run."""
        lines = self.make('-n', *arguments)[0].splitlines()
        words = [shlex.split(line.removesuffix(SWEPT)) for line in lines if 'train.py' in line]
        assert all(line[:2] == ['.venv/bin/python', 'train.py'] for line in words)
        return [line[2:] for line in words]

    def calls(self, word=''):
        path = self.folder.parent / 'calls'
        return [line for line in path.read_text().splitlines() if word in line] if path.exists() else []

    def refusal(self, *arguments, **environment):
        """The one line with which make refuses, having done nothing."""
        out, err = self.make(*arguments, status=2, **environment)
        assert out == '' and len(err.splitlines()) == 1
        assert self.calls() == [] and not (self.folder / '.venv').exists()
        return err
