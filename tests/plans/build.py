"""``python -m tests.plans.build``: builds cuDNN's plans for a device that is described, as a process of its own.

Reads JSON, ``{"device": properties, "cases": [...]}``, writes for each case the bytes of its plan's workspace, or what
cuDNN said.
"""
import json
import sys
import types

from util.engine.cudnn import PRECISIONS, Plan, Window


def frontend_for(device):
    """The package ``cudnn``, with graphs for a device that is described by cuDNN's names for its properties."""
    import cudnn
    properties = cudnn.create_device_properties(json.dumps(device))

    def pygraph(handle, **options):
        return cudnn.pygraph(device_property=properties, sm_version=device['deviceVer'],
                             sm_count=device['multiProcessorCount'], **options)
    names = 'data_type', 'heur_mode', 'numerical_note', 'build_plan_policy', 'cudnnGraphNotSupportedError'
    return types.SimpleNamespace(pygraph=pygraph, **{name: getattr(cudnn, name) for name in names})


def main():
    asked = json.load(sys.stdin)
    frontend = frontend_for(asked['device'])
    results = []
    for precision, kind, shapes, shape, window, bias in asked['cases']:
        try:
            plan = Plan(frontend, None, PRECISIONS[precision], kind, shapes, shape, Window(*window), bias)
            results.append(plan.workspace)
        except frontend.cudnnGraphNotSupportedError as error:
            results.append(str(error))
    print(json.dumps(results))


if __name__ == '__main__':
    main()
