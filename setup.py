"""Package metadata of sourcesep."""

import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).parent
TRAIN = (  # training, evaluation, export, and separation with any run
    "jinja2",
    "matplotlib",
    "psutil",
    "setuptools<82",  # for pkg_resources, which tensorboard imports: Python 3.12 and setuptools 82 come without it
    "tensorboard",
    "tensorflow>=2.16",
    "tensorflow-serving-api>=2.16",  # protocol buffers alone, for the warm-up requests of an export
)
STUBS = ("types-psutil", "types-pyyaml", "types-tqdm")

setuptools.setup(
    name="sourcesep",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "sourcesep" / "__init__.py").read_text())[1],
    description="Splits a recording into any instruments, with models trained on synthesised MIDI",
    author="sourcesep developers",
    keywords="music source separation, MIDI, synthesis, audio, WaveNet, TensorFlow",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3 :: Only",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(9, 14)),
        "Topic :: Multimedia :: Sound/Audio :: Analysis",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.9",
    packages=setuptools.find_packages(include=["data_gen", "data_gen.*", "sourcesep", "sourcesep.*"]),
    package_data={
        "data_gen": ["py.typed"],
        "sourcesep": ["evaluate/templates/*", "export/web/*", "pretrained/*", "pretrained_blind/*", "py.typed"],
    },
    install_requires=[  # what separates with the packaged model; the extra "train" is needed for everything else
        "absl-py",
        "ai-edge-litert",
        "av>=13",  # decodes compressed sound files to their end
        "filelock>=3.12",
        "h5py",
        "numpy",
        "platformdirs",
        "pretty_midi",  # for the SoundFont that it contains
        "pyfluidsynth>=1.3,!=1.3.5,!=1.3.6",  # those two want pyaudio, which has to be compiled
        "pyyaml",
        "scipy",
        "soundfile>=0.12",
        "soxr>=0.5",
        "tqdm",
    ],
    extras_require={
        "train": list(TRAIN),
        # The last tensorflow-io loads its native operations with TensorFlow 2.16 alone.
        "io": [
            'tensorflow==2.16.*; python_version < "3.13"',
            'tensorflow-io==0.37.1; python_version < "3.13"',
            'tensorflow-serving-api==2.16.*; python_version < "3.13"',  # stated, or pip tries all later ones first
        ],
        # The newest pyarrow wants a newer NumPy than TensorFlow 2.16 does.
        "ray": ["ray[data]>=2.40", 'pyarrow<26; python_version < "3.13"'],
        # With the newest TensorFlow: a server to test exports with.
        "latest": ['kserve; python_version >= "3.10" and python_version < "3.14"'],
        "museval": ["museval"],
        "dev": [
            *TRAIN,
            "fast-bss-eval",
            "hypothesis",
            "mido>=1.3",
            "mypy",
            "pytest",
            "pytest-xdist",
            "ruff",
            "selenium",
            *STUBS,
        ],
        # What some tests compare with; without it they are skipped.
        # Later releases of jax want a newer ml_dtypes than TensorFlow 2.16 does.
        "ci": ["jax<0.4.35", "marionette-driver", "museval", "ray[data]>=2.40", 'pyarrow<26; python_version < "3.13"'],
    },
    entry_points={
        "console_scripts": [
            "sourcesep_train = sourcesep.cli:train",
            "sourcesep_separate = sourcesep.cli:separate",
            "sourcesep_evaluate = sourcesep.cli:evaluate",
            "sourcesep_export = sourcesep.cli:export",
            "sourcesep_web = sourcesep.cli:web",
        ]
    },
)
