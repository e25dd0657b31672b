"""Trainer extension that writes a run's log and grids of samples for TensorBoard, into ``tensorboard/`` of the run.

It reads what other extensions have made and computes nothing, so training is the same to the bit.
"""
import contextlib
import importlib.util
import os
import re
import time

import chainer

from util.files import UserError

FOLDER = 'tensorboard'
_PACKAGE = 'tensorboardX'
_IMAGE = re.compile(r'iter_(\d{6,})\.png')
_PNG_SIZE = slice(16, 24)  # where a PNG's width and height are, four bytes each


def check_package():
    """Raise a UserError, which says how to install it, when the package that writes is missing."""
    if importlib.util.find_spec(_PACKAGE) is None:
        raise UserError("--tensorboard needs the package {}, the extra `tensorboard`: TENSORBOARD=1 of make installs "
                        "it, as does pip install --editable '.[tensorboard]'".format(_PACKAGE))


class WriteTensorBoard(chainer.training.Extension):
    """Trainer extension: writes each entry of ``log``, under its keys, and each ``images/iter_*.png`` as ``samples``.

    Each session begins a file of its own with all that the run has had up to the iteration that it goes on from, and
    removes the files before it. So later steps of a session that was broken off are gone, no step is there twice, and
    a run that was begun without this extension is whole, too.

    Args:
        directory (RunDirectory): The run.

    """

    priority = chainer.training.extension.PRIORITY_READER - 2  # after WriteLog

    def __init__(self, directory):
        self._directory, self._writer = directory, None

    def initialize(self, trainer):
        """Begin the session's file."""
        folder = self._directory.file(FOLDER)
        with _os_errors(folder):
            os.makedirs(folder, exist_ok=True)
            for name in os.listdir(folder):
                if name.startswith('events.'):
                    os.unlink(os.path.join(folder, name))
            from tensorboardX.event_file_writer import EventsWriter
            self._writer = EventsWriter(os.path.join(folder, 'events'))  # without the threads of its SummaryWriter
            self._replay(trainer)
            self._writer.flush()

    def _replay(self, trainer):
        from tensorboardX.proto.event_pb2 import Event, SessionLog
        # A TensorBoard that has read the files before forgets them
        self._writer.write_event(Event(step=0, wall_time=time.time(), session_log=SessionLog(status=SessionLog.START)))
        self._began = time.time() - trainer.elapsed_time
        for entry in trainer.get_extension('LogReport').log:  # the snapshot's, so none is of later iterations
            self._write_scalars(entry)
        if trainer.updater.iteration:  # otherwise GenerateFakeImage is about to draw the first
            for iteration in self._drawn():
                if iteration <= trainer.updater.iteration:
                    self._write_image(iteration)

    def _drawn(self):
        folder = os.path.dirname(self._directory.image(0))
        names = map(_IMAGE.fullmatch, os.listdir(folder) if os.path.isdir(folder) else [])
        return sorted(int(match.group(1)) for match in names if match)

    def __call__(self, trainer):
        iteration, log = trainer.updater.iteration, trainer.get_extension('LogReport').log
        with _os_errors(self._directory.file(FOLDER)):
            if log and log[-1]['iteration'] == iteration:
                self._write_scalars(log[-1])
            if iteration in self._drawn():
                self._write_image(iteration)
            self._writer.flush()  # before the snapshot of this iteration

    def _write_scalars(self, entry):
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        values = [Summary.Value(tag=key, simple_value=float(value)) for key, value in entry.items()
                  if key != 'iteration']
        self._writer.write_event(Event(step=entry['iteration'], wall_time=self._began + entry['elapsed_time'],
                                       summary=Summary(value=values)))

    def _write_image(self, iteration):
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.proto.summary_pb2 import Summary
        path = self._directory.image(iteration)
        with open(path, 'rb') as f:
            png = f.read()
        size = png[_PNG_SIZE]
        image = Summary.Image(width=int.from_bytes(size[:4], 'big'), height=int.from_bytes(size[4:], 'big'),
                              colorspace=3, encoded_image_string=png)
        self._writer.write_event(Event(step=iteration, wall_time=os.path.getmtime(path), summary=Summary(
            value=[Summary.Value(tag='samples', image=image)])))

    def finalize(self):
        """Close the file."""
        if self._writer is not None:
            with _os_errors(self._directory.file(FOLDER)):
                self._writer.close()


@contextlib.contextmanager
def _os_errors(folder):
    """What the operating system refuses becomes a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError('cannot write {}: {}'.format(folder, error.strerror or error)) from error
