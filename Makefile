# Spectral Normalization for GANs, in Chainer. GNU make and a POSIX shell. The lines that begin with "##" are "make help".

.DEFAULT_GOAL := help
ROWS := default A B C D E F
RUNS := normalize $(ROWS:%=setting-%)

# The command line of a run: a flag for each variable that is set. Values reach the shell in single quotes.
quote = '$(subst ','\'',$(1))'
flag = $(if $(strip $(2)), $(1) $(call quote,$(2)))
rows = $(call flag,--profile,$(PROFILE))$(call flag,--dataset,$(DATASET))$(call flag,--model,$(MODEL))
scoring = $(call flag,--protocol,$(PROTOCOL))$(call flag,--scorer,$(SCORER))
numbers = $(call flag,--iterations,$(ITERATIONS))$(call flag,--seed,$(SEED))
places = $(call flag,--device,$(DEVICE))$(call flag,--data-dir,$(DATA_DIR))$(call flag,--out,$(OUT))
keys = $(if $(strip $(SET)), $(foreach pair,$(SET),--set $(call quote,$(pair))))
method = $(call flag,--method,$(or $(strip $(METHOD)),sn))
train = .venv/bin/python train.py$(method)$(call flag,--setting,$(1))$(rows)$(scoring)$(numbers)$(places)$(keys)

# Which CUDA: what CUDA= says on the command line (clusters export a CUDA=/usr/local/cuda of their own), else what .venv
# was made for, else what the driver says. "install" asks the driver anew.
goals := $(or $(MAKECMDGOALS),help)
ifneq ($(and $(filter command line,$(origin CUDA)),$(strip $(CUDA))),)
  cuda := $(strip $(CUDA))
  why := as CUDA= says
else ifneq ($(filter-out help clean test-kernels parity,$(goals)),)
  cuda := $(patsubst .venv/.installed-%,%,$(firstword $(wildcard .venv/.installed-*)))
  why := as before
  ifneq ($(or $(if $(cuda),,unknown),$(filter install,$(goals))),)
    driver := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA\( UMD\)* Version: *\([0-9][0-9]*\)\..*/\2/p' | head -n 1)
    cuda := $(if $(filter-out 0 1 2 3 4 5 6 7 8 9 10 11,$(driver)),$(if $(filter 12,$(driver)),12,13),none)
    why := $(if $(driver),the NVIDIA driver is made for CUDA $(driver),no NVIDIA driver answers)
  endif
endif
ifneq ($(filter-out 12 13 none,$(cuda)),)
  $(error CUDA=$(cuda): expected 12, 13 or none)
endif
runs := $(filter $(RUNS),$(patsubst settings,$(ROWS:%=setting-%),$(goals)))
ifneq ($(and $(strip $(OUT)),$(word 2,$(runs))),)
  $(error OUT=$(OUT): is the folder of one run, and several were asked for; leave it out, or run them one by one)
endif
ifneq ($(and $(strip $(SETTING)),$(filter-out normalize setting-$(SETTING),$(runs))),)
  $(error SETTING=$(SETTING): contradicts $(filter-out normalize setting-$(SETTING),$(runs)))
endif

ifneq ($(and $(filter scorer,$(goals)),$(if $(strip $(DATASET)),,missing)),)
  $(error DATASET=: name a data set whose pictures have labels, as in "make scorer DATASET=cifar10")
endif

installed := .venv/.installed-$(cuda)
.PHONY: help install settings table inception scorer test test-kernels parity lint clean $(RUNS)

## make TARGET [VARIABLE=VALUE ...]
##
##   help             this text
help:
	@sed -n 's/^## \{0,1\}//p' Makefile

##   install          makes .venv, as every target that needs it does. CUDA=12, 13 or none (default: asks the driver)
install: $(installed)
	@echo 'installed in .venv, CUDA $(cuda) ($(why))'

##   normalize        trains, draws and scores one GAN with spectral normalization; the profile says which setting
normalize: $(installed)
	$(call train,$(strip $(SETTING)))

##   setting-default  setting-A  setting-B  setting-C  setting-D  setting-E  setting-F
##                    the same with another row of the paper's table of settings
$(ROWS:%=setting-%): setting-%: $(installed)
	$(call train,$*)

##   settings         all these rows; "make -k" goes on past a failed run, "make -j 4" trains four at once
settings: $(ROWS:%=setting-%)

##   table            the table of all scored runs, beside the paper's numbers
table: $(installed)
	.venv/bin/python -m util.report

##   inception        fetches and converts the weights of the Inception network, 89 MB. FROM=tensorflow or pytorch
inception: $(installed)
	.venv/bin/python -m util.inception fetch$(call flag,--from,$(FROM))

##   scorer           trains the classifier that scores pictures of DATASET= where Inception is not wanted
scorer: $(installed)
	.venv/bin/python -m util.classifier $(call quote,$(DATASET))$(call flag,--seed,$(SEED))$(call flag,--device,$(DEVICE)) \
	    $(call flag,--data-dir,$(DATA_DIR))

##   test             the tests and their coverage
test: .venv/.tools-installed
	.venv/bin/python -m pytest --cov --cov-report=term --durations=10

##   test-kernels     compiles the CUDA kernels, without a GPU, in an environment of its own (.venv-kernels)
test-kernels: .venv-kernels/.installed
	@.venv-kernels/bin/python -c 'import util; from cupy.cuda import nvrtc; print("NVRTC", nvrtc.getVersion())'
	.venv-kernels/bin/python -m pytest -rs tests/kernels

##   parity           compares network and metrics with torch-fidelity's, in an environment with PyTorch (.venv-parity)
parity: .venv-parity/.installed
	DATA_DIR=$(call quote,$(DATA_DIR)) .venv-parity/bin/python -m pytest -rs tests/parity

##   lint             ruff
lint: .venv/.tools-installed
	.venv/bin/python -m ruff check .

##   clean            removes environments, builds and caches; nothing in results/
clean:
	rm -rf .venv .venv-kernels .venv-parity build dist *.egg-info .coverage .coverage.* .hypothesis .pytest_cache .ruff_cache
	find . \( -path ./results -o -path ./.git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'results/ was left alone'

##
## Variables of runs, each a flag of train.py
##   PROFILE DATASET MODEL METHOD SETTING PROTOCOL   names of rows in configs/*.yml
##   SCORER                                 what scores: inception, a classifier that "make scorer" made, or none
##   ITERATIONS SEED DEVICE                 DEVICE: auto, cpu, or the number of a GPU
##   DATA_DIR OUT                           folders: the data set's, the run's
##   SET                                    single keys: SET="setting.n_dis=1 method.n_power_iteration=2"
## and PYTHON, the interpreter that .venv is made with: 3.10 to 3.13, by default the first found.
##
## make takes all but CUDA from the environment, too. A finished run is not repeated, and an unfinished one is resumed.
## Runs side by side on one CPU (make -j) want a share of its cores each, as in "OMP_NUM_THREADS=1 make -j2 settings".
## The number of threads can change the last bits of a result: to finish a run exactly as it began, keep it.

# An environment: its folder, what pip is to install, the stamp that says so, and what the stamp depends on.
$(installed): setup.py constraints.txt
	@echo 'making .venv, CUDA $(cuda) ($(why))'
	@$(make-environment) .venv '.$(addprefix [cuda,$(addsuffix ],$(filter-out none,$(cuda))))' $@ $^

.venv/.tools-installed: setup.py constraints.txt $(installed)
	@$(make-environment) .venv '.[test]' $@ $^

.venv-kernels/.installed: setup.py constraints.txt
	@$(make-environment) .venv-kernels '.[test,kernels]' $@ $^

.venv-parity/.installed: setup.py constraints.txt
	@$(make-environment) .venv-parity '.[test,parity]' $@ $^

# Under a lock: several makes may start at once, as in a Slurm array.
make-environment = $$(command -v flock >/dev/null && echo flock constraints.txt) sh -euc "$$MAKE_ENVIRONMENT" make

define MAKE_ENVIRONMENT
folder=$$1 what=$$2 stamp=$$3
shift 3
fresh=yes
for file; do [ "$$stamp" -nt "$$file" ] || fresh=no; done
[ $$fresh = no ] || exit 0  # another make did it while this one waited for the lock

fits() { "$$1" -c 'import ensurepip, sys, venv; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null; }
if ! "$$folder/bin/python" -m pip --version >/dev/null 2>&1; then
    names='python3 python3.13 python3.12 python3.11 python3.10'
    given=$${PYTHON:-$$names}
    [ -n "$${PYTHON:-}" ] || for PYTHON in $$names; do ! fits $$PYTHON || break; done
    if ! fits "$$PYTHON"; then
        echo "error: PYTHON ($$given): expected a Python 3.10 to 3.13 that has venv and ensurepip" >&2
        exit 2
    fi
    "$$PYTHON" -m venv --clear "$$folder"
fi
case $$stamp in  # the two CuPys cannot live together
    */.installed-12) unwanted=cupy-cuda13x ;;
    */.installed-13) unwanted=cupy-cuda12x ;;
    */.installed-none) unwanted='cupy-cuda12x cupy-cuda13x' ;;
    *) unwanted= ;;
esac
if [ -n "$$unwanted" ]; then
    rm -f "$$folder"/.installed-*
    "$$folder/bin/python" -m pip --quiet uninstall --yes $$unwanted 2>/dev/null
fi
# Chainer's build sees the constraints only through these variables. pip splits them at blanks, so the path goes as a URL.
url=$$("$$folder/bin/python" -c 'import pathlib; print(pathlib.Path("constraints.txt").resolve().as_uri())')
export PIP_CONSTRAINT="$${PIP_CONSTRAINT:+$$PIP_CONSTRAINT }$$url"
export PIP_BUILD_CONSTRAINT="$${PIP_BUILD_CONSTRAINT:+$$PIP_BUILD_CONSTRAINT }$$url"
"$$folder/bin/python" -m pip --disable-pip-version-check install --editable "$$what"
touch "$$stamp"
endef
$(installed) .venv/.tools-installed .venv-kernels/.installed .venv-parity/.installed: export MAKE_ENVIRONMENT := $(MAKE_ENVIRONMENT)
