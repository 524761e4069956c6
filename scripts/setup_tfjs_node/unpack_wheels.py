# Unpacks the libraries and the headers of the C API from wheels of TensorFlow and of NVIDIA, and nothing else: a third
# of TensorFlow's wheel is of use only to Python and to those who compile against its C++.
#   python3 unpack_wheels.py requirements WHEEL   what the extra and-cuda wants, one requirement a line
#   python3 unpack_wheels.py unpack FOLDER TARGET   writes "<bytes done> <bytes of all>" lines while it works
import os
import re
import sys
import zipfile

WANTED = [
    (re.compile(r'tensorflow/(libtensorflow_(?:cc|framework)\.so\.2)$'), 'lib'),
    (re.compile(r'tensorflow/include/((?:tensorflow/(?:c|core/platform|tsl)|tsl|xla/tsl)/.*\.(?:h|inc))$'), 'include'),
    # ptxas and libdevice are for XLA.
    (re.compile(r'nvidia/([^/]+/(?:lib|bin|nvvm)/.*(?<!\.a))$'), 'nvidia'),
]


def target_of(name):
    """Where a file of a wheel goes, or None."""
    if name.endswith('/') or '..' in name.split('/'):
        return None
    for pattern, folder in WANTED:
        match = pattern.match(name)
        if match:
            return os.path.join(folder, match.group(1))
    return None


def requirements(wheel):
    with zipfile.ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith('.dist-info/METADATA'))
        for line in archive.read(metadata).decode().splitlines():
            match = re.match(r'''Requires-Dist: ([^;]+);.*extra == ["']and-cuda["']''', line)
            if match:
                print(match.group(1).strip().replace(' ', ''))


def unpack(folder, target):
    names = sorted(name for name in os.listdir(folder) if name.endswith('.whl'))
    wheels = [zipfile.ZipFile(os.path.join(folder, name)) for name in names]
    members = [(wheel, info) for wheel in wheels for info in wheel.infolist() if target_of(info.filename)]
    total = sum(info.file_size for _, info in members)
    done = 0
    for wheel, info in members:
        path = os.path.join(target, target_of(info.filename))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with wheel.open(info) as source, open(path, 'wb') as copy:
            while True:
                block = source.read(1 << 22)
                if not block:
                    break
                copy.write(block)
                done += len(block)
                print(done, total, flush=True)
        if info.external_attr >> 16 & 0o111:
            os.chmod(path, 0o755)


if __name__ == '__main__':
    {'requirements': requirements, 'unpack': unpack}[sys.argv[1]](*sys.argv[2:])
