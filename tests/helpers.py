"""What several test files need."""
import contextlib
import os
import signal
import threading

from util.updater import GANUpdater

# Flags that make scores of 20 pictures
FEW = ['--set', 'protocol.samples=20', '--set', 'protocol.training_samples=20', '--set', 'protocol.distance_samples=20']


def tree(folder):
    """Everything in a folder, with the content of files."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob('*')}


def refused(capsys, status, *messages, silent=False):
    """A command line was refused: status 2, one line on stderr with the messages, and if ``silent`` no other output."""
    output = capsys.readouterr()
    assert status == 2
    assert output.err.startswith('error: ') and output.err.count('\n') == 1, output.err
    assert all(message in output.err for message in messages), output.err
    assert not silent or output.out == ''


def signal_in(monkeypatch, iteration):
    """Have SIGTERM come in the midst of an iteration."""
    original = GANUpdater.update_generator

    def interrupted(self):
        if self.iteration == iteration - 1:  # it is counted after the update
            os.kill(os.getpid(), signal.SIGTERM)
        original(self)
    monkeypatch.setattr(GANUpdater, 'update_generator', interrupted)


def in_a_forked_child(work):
    """Whether ``work()`` is true in a child that is forked now; it may take 20 s. An error there is none of ours."""
    child = os.fork()
    if not child:
        status = 1
        try:
            signal.alarm(20)  # rather than hang
            status = 0 if work() else 2
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@contextlib.contextmanager
def held_by_another_thread(context, held=True):
    """Another thread is in the midst of a ``with`` statement of ``context``, if ``held``."""
    holding, release = threading.Event(), threading.Event()

    def hold():
        with context:
            holding.set()
            release.wait(timeout=20)
    thread = threading.Thread(target=hold)
    if held:
        thread.start()
        holding.wait(timeout=20)
    try:
        yield
    finally:
        release.set()
        if held:
            thread.join()
