# Spectral Normalization for GANs, in Chainer. GNU make and a POSIX shell. The lines that begin with "##" are "make help".

.DEFAULT_GOAL := help
ROWS := default A B C D E F
METHODS := $(shell sed -n 's/^\([A-Za-z0-9_]*\):.*/\1/p' configs/methods.yml)
# The scales that the configuration of Lin et al. tries on CIFAR-10
SCALES := 0.7 0.8 0.9 1.0 1.2 1.4 1.6 1.8 2.0 2.2 2.4 2.6 2.8 3.0 3.2 3.4 3.6 3.8 4.0
# The paper's Figure 11; the quick profile takes the first of the seeds, unless SEEDS= says which
N_DIS := 1 2 5 10 20
SEEDS := 0 1 2

# The sweeps and their runs, which are targets, too. The paper's Figures 1 and 2 are the grid.
SETTINGS_RUNS := $(ROWS:%=setting-%)
METHODS_RUNS := $(METHODS:%=method-%)
GRID_METHODS := weight_clipping gan_gp wgan_gp batch_norm layer_norm weight_norm orthonormal sn
GRID_SETTINGS := A B C D E F
GRID_RUNS := $(foreach method,$(GRID_METHODS),$(GRID_SETTINGS:%=grid-$(method)-%))
RESNET_RUNS := $(addprefix resnet-,resnet-orthonormal_hinge resnet-sn_hinge resnet_projection-sn_hinge)
STL10_RUNS := $(addprefix stl10-,$(addprefix cnn-,weight_clipping wgan_gp layer_norm weight_norm orthonormal sn sn_hinge) \
    resnet48-orthonormal_hinge resnet48-sn_hinge)
IMAGENET_RUNS := $(addprefix imagenet-,resnet128_concat-sn_hinge resnet128_concat-orthonormal_hinge \
    resnet128_projection-sn_hinge resnet128-sn_hinge)
BSSN_RUNS := $(foreach method,ssn bssn,$(SCALES:%=bssn-$(method)-%))
# The longest last, two side by side
N_DIS_RUNS := $(foreach seed,$(SEEDS),$(foreach n,$(N_DIS),n-dis-weight_norm-$(n)-$(seed) n-dis-sn-$(n)-$(seed)))
# The paper's Figure 15 has wgan_gp and sn_gp
CRITIC_RUNS := $(addprefix critic-,none wgan_gp weight_norm sn sn_gp)
SWEEPS := settings methods grid resnet stl10 imagenet bssn n-dis critic
RUNS := normalize $(SETTINGS_RUNS) $(METHODS_RUNS) $(GRID_RUNS) $(RESNET_RUNS) $(STL10_RUNS) $(IMAGENET_RUNS) $(BSSN_RUNS) \
    $(N_DIS_RUNS) $(CRITIC_RUNS)

# What a target fixes, what it takes where the user says nothing, what it adds to the run's name and command
fixed-method :=
fixed-setting :=
fixed-model :=
fixed-dataset :=
fixed-seed :=
default-setting :=
default-model :=
default-protocol :=
default-iterations :=
suffix :=
more :=
# The n-th part of a target's name, counted from 1: the parts of grid-sn-A are grid, sn and A
part = $(word $(1),$(subst -, ,$@))

$(SETTINGS_RUNS): fixed-setting = $(call part,2)
$(METHODS_RUNS): fixed-method = $(call part,2)
$(GRID_RUNS): fixed-method = $(call part,2)
$(GRID_RUNS): fixed-setting = $(call part,3)
$(RESNET_RUNS) $(STL10_RUNS) $(IMAGENET_RUNS): fixed-model = $(call part,2)
$(RESNET_RUNS) $(STL10_RUNS) $(IMAGENET_RUNS): fixed-method = $(call part,3)
$(RESNET_RUNS): default-setting := resnet
$(STL10_RUNS): fixed-dataset := stl10
$(STL10_RUNS): default-setting = $(if $(filter cnn,$(call part,2)),$(or $(best-of-$(call part,3)),default),resnet)
# What the paper says of its best settings for STL-10 (footnote 4 and Figure 4). The hinge is run where the log loss is
best-of-sn := B
best-of-sn_hinge := B
best-of-orthonormal := C
$(IMAGENET_RUNS): fixed-dataset := imagenet
$(IMAGENET_RUNS): default-setting := imagenet
$(IMAGENET_RUNS): default-protocol := imagenet
$(IMAGENET_RUNS): default-iterations := 450000
$(IMAGENET_RUNS): more := --evaluation-interval 10000 --snapshot-interval 10000
$(BSSN_RUNS): fixed-method = $(call part,2)
$(BSSN_RUNS): default-setting := B
$(BSSN_RUNS): default-model := bsn_cnn
$(BSSN_RUNS): suffix = scale-$(call part,3)
$(BSSN_RUNS): more = --set method.scale=$(call part,3)
$(N_DIS_RUNS): fixed-method = $(call part,3)
$(N_DIS_RUNS): fixed-seed = $(call part,5)
$(N_DIS_RUNS): default-setting := D
$(N_DIS_RUNS): default-iterations = $(if $(quick),300,10000)
$(N_DIS_RUNS): suffix = n_dis-$(call part,4)
$(N_DIS_RUNS): more = --set setting.n_dis=$(call part,4)
# The quick profile trains on all digits, and would have none left to validate on
$(CRITIC_RUNS): fixed-method = $(call part,2)
$(CRITIC_RUNS): default-iterations = $(if $(quick),1000)
$(CRITIC_RUNS): suffix = $(if $(quick),split-train)
$(CRITIC_RUNS): more = $(if $(quick),--set dataset.split=train)

# The command line of a run: a flag for each variable that is set. Values reach the shell in single quotes.
quote = '$(subst ','\'',$(1))'
flag = $(if $(strip $(2)), $(1) $(call quote,$(2)))
method = $(call flag,--method,$(or $(fixed-method),$(strip $(METHOD)),sn))
setting = $(call flag,--setting,$(or $(fixed-setting),$(strip $(SETTING)),$(default-setting)))
dataset = $(call flag,--dataset,$(or $(fixed-dataset),$(strip $(DATASET))))
model = $(call flag,--model,$(or $(fixed-model),$(strip $(MODEL)),$(default-model)))
rows = $(method)$(setting)$(call flag,--profile,$(PROFILE))$(dataset)$(model)
scoring = $(call flag,--protocol,$(or $(strip $(PROTOCOL)),$(default-protocol)))$(call flag,--scorer,$(SCORER))
numbers = $(call flag,--iterations,$(or $(strip $(ITERATIONS)),$(default-iterations)))$(call flag,--seed,$(or $(fixed-seed),$(SEED)))
tag = $(if $(strip $(TAG)),$(strip $(TAG))$(if $(suffix),-))$(suffix)
tensorboard := $(filter-out 0,$(strip $(TENSORBOARD)))
places = $(call flag,--device,$(DEVICE))$(call flag,--engine,$(ENGINE))$(call flag,--capture,$(CAPTURE))$(call flag,--data-dir,$(DATA_DIR))$(call flag,--out,$(OUT))$(call flag,--tag,$(tag))$(call flag,--probe,$(PROBE))$(if $(tensorboard), --tensorboard)
keys = $(if $(strip $(SET)), $(foreach pair,$(SET),--set $(call quote,$(pair))))
train = .venv/bin/python train.py$(rows)$(scoring)$(numbers)$(places)$(if $(more), $(more))$(keys)
# In a sweep, which says sweep=yes, a run that diverges (exit status 3) is a result like others
sweep :=
run = $(train)$(if $(sweep), || [ $$? -eq 3 ])

# Which CUDA: what CUDA= says on the command line (clusters export a CUDA=/usr/local/cuda of their own), else what .venv
# was made for, else what the driver says. "install" asks the driver anew, "gpu-check" does where .venv has no CUDA.
goals := $(or $(MAKECMDGOALS),help)
ifneq ($(and $(filter command line,$(origin CUDA)),$(strip $(CUDA))),)
  cuda := $(strip $(CUDA))
  why := as CUDA= says
else ifneq ($(filter-out help clean test-kernels test-plans parity cpu-benchmark,$(goals)),)
  cuda := $(patsubst .venv/.installed-%,%,$(firstword $(wildcard .venv/.installed-*)))
  why := as before
  ifneq ($(or $(if $(cuda),,unknown),$(filter install,$(goals)),$(and $(filter none,$(cuda)),$(filter gpu-check,$(goals)))),)
    driver := $(shell nvidia-smi 2>/dev/null | sed -n 's/.*CUDA\( UMD\)* Version: *\([0-9][0-9]*\)\..*/\2/p' | head -n 1)
    cuda := $(if $(filter-out 0 1 2 3 4 5 6 7 8 9 10 11,$(driver)),$(if $(filter 12,$(driver)),12,13),none)
    why := $(if $(driver),the NVIDIA driver is made for CUDA $(driver),no NVIDIA driver answers)
  endif
endif
ifneq ($(filter-out 12 13 none,$(cuda)),)
  $(error CUDA=$(cuda): expected 12, 13 or none)
endif
ifneq ($(and $(filter gpu-check,$(goals)),$(filter none,$(cuda))),)
  $(error gpu-check: needs an NVIDIA GPU ($(why)); nothing was installed)
endif
ifneq ($(and $(strip $(OUT)),$(word 2,$(filter $(RUNS),$(goals)))$(filter $(SWEEPS),$(goals))),)
  $(error OUT=$(OUT): is the folder of one run, and several were asked for; leave it out, or run them one by one)
endif
# Variables that say something else than a target, which would be ignored: $(call contradicted,VALUE,TARGETS)
contradicted = $(foreach goal,$(if $(strip $(1)),$(filter $(2),$(goals))),$(if $(filter $(1),$(subst -, ,$(goal))),,$(goal)))
networks := resnet stl10 imagenet $(RESNET_RUNS) $(STL10_RUNS) $(IMAGENET_RUNS)
define CHECK
  $(if $(call contradicted,$($(1)),$(2)),$(error $(1)=$($(1)): contradicts $(call contradicted,$($(1)),$(2))))
endef
$(call CHECK,SETTING,settings grid $(SETTINGS_RUNS) $(GRID_RUNS))
$(call CHECK,METHOD,methods grid bssn n-dis critic $(networks) $(METHODS_RUNS) $(GRID_RUNS) $(BSSN_RUNS) $(N_DIS_RUNS) $(CRITIC_RUNS))
$(call CHECK,SEED,n-dis $(N_DIS_RUNS))
$(call CHECK,MODEL,$(networks))
$(call CHECK,DATASET,$(filter-out resnet%,$(networks)))
ifneq ($(and $(filter imagenet imagenet-%,$(goals)),$(if $(strip $(DATA_DIR)),,missing)),)
  $(error DATA_DIR=: name the folder of ImageNet's class folders, or a file that was prepared from it)
endif
ifneq ($(and $(filter scorer,$(goals)),$(if $(strip $(DATASET)),,missing)),)
  $(error DATASET=: name a data set whose pictures have labels, as in "make scorer DATASET=cifar10")
endif

installed := .venv/.installed-$(cuda)
.PHONY: help install onednn $(SWEEPS) table figures report timing inception scorer test test-kernels test-plans parity cpu-benchmark \
    gpu-check lint clean $(RUNS)

## make TARGET [VARIABLE=VALUE ...]
##
##   help             this text
help:
	@sed -n 's/^## \{0,1\}//p' Makefile

##   install          makes .venv, as every target that needs it does. CUDA=12, 13 or none (default: asks the driver)
install: $(installed)
	@echo 'installed in .venv, CUDA $(cuda) ($(why))'

##   onednn           installs Intel's oneDNN, 39 MB, into .venv: from then on it computes on the CPU. Linux on x86-64
onednn: .venv/.onednn-installed

##   normalize        trains, draws and scores one GAN with spectral normalization; the profile says which setting
##   setting-default  setting-A  setting-B  setting-C  setting-D  setting-E  setting-F
##                    the same with another row of the paper's table of settings
##   method-NAME      the same with another row of configs/methods.yml: method-none, method-wgan_gp ...
$(RUNS): $(installed) $(if $(tensorboard),.venv/.tensorboard-installed)
	$(run)

##
## Sweeps, many runs each. The same command again goes on with one that was broken off. On a CPU as many runs go side by
## side as there are cores, on a GPU one ("make -j 4": four). "make -k" goes on past a run that fails; to diverge is not to
## fail, but a result.
##   settings         all these settings
settings: $(installed)
	$(call sweep-over,$(SETTINGS_RUNS))

##   methods          all methods, in one setting (SETTING=). In the quick profile 1,000 generator updates each
methods: $(installed)
	$(call sweep-over,$(METHODS_RUNS),$(if $(quick),$(if $(strip $(ITERATIONS)),,ITERATIONS=1000 $(call quote,TAG=$(or $(TAG),1000)))))

##   grid             the paper's methods x settings A to F: its Figures 1 and 2. Others: GRID_METHODS="none sn"
##                    GRID_SETTINGS="default D"
grid: $(installed)
	$(call sweep-over,$(GRID_RUNS))

##   resnet           the paper's ResNets (Table 4), and the conditional one
resnet: $(installed)
	$(call sweep-over,$(RESNET_RUNS))

##   stl10            the paper's rows for STL-10: CNN and ResNet (Table 5)
stl10: $(installed)
	$(call sweep-over,$(STL10_RUNS))

##   imagenet         the paper's ResNet for ImageNet (Table 6), 450,000 generator updates; DATA_DIR= the folder of classes
imagenet: $(installed)
	$(call sweep-over,$(IMAGENET_RUNS))

##   bssn             scaled, and bidirectional scaled spectral normalization, with all scales (SCALES="1.0 1.2")
bssn: $(installed)
	$(call sweep-over,$(BSSN_RUNS))

##   n-dis            SN and weight norm. by n_dis (N_DIS="1 2 5 10 20"), setting D, 10,000 generator updates with each of
##                    SEEDS="0 1 2": the paper's Figure 11. In the quick profile 300 updates with the first seed
n-dis: $(installed)
	$(call sweep-over,$(if $(and $(quick),$(filter file,$(origin SEEDS))),$(filter %-$(firstword $(SEEDS)),$(N_DIS_RUNS)),$(N_DIS_RUNS)))

##   critic           methods whose discriminator is validated on pictures that were held back: the paper's Figure 15.
##                    Elsewhere than in the quick profile these are the runs of "make methods"
## Single runs of these, too: grid-METHOD-SETTING, resnet-MODEL-METHOD, stl10-MODEL-METHOD, imagenet-MODEL-METHOD,
## bssn-METHOD-SCALE, n-dis-METHOD-N_DIS-SEED, critic-METHOD
##
critic: $(installed)
	$(call sweep-over,$(CRITIC_RUNS))

# $(call sweep-over,TARGETS,VARIABLES): all of them in a make of their own. Without a GPU and without -j it is -j CORES,
# with one thread a run: two runs side by side take hardly longer than one.
on-cpu = $(filter cpu -1,$(DEVICE))$(filter none,$(cuda))
side-by-side = $(if $(filter -j%,$(MAKEFLAGS)),,$(if $(on-cpu),-j$(shell env -u OMP_NUM_THREADS nproc) --output-sync=target))
sweep-over = +@$(if $(on-cpu),OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1}) \
    $(MAKE) --no-print-directory $(side-by-side) sweep=yes $(2) $(1)
# Whether train.py will choose the quick profile
quick = $(if $(filter quick,$(PROFILE)),yes,$(if $(filter-out auto,$(PROFILE)),,$(on-cpu)))

##   table            the table of all scored runs, beside the paper's numbers
table: $(installed)
	.venv/bin/python -m util.report

##   figures          results/figures/: the papers' figures of all runs, as PNG, SVG and CSV
figures: $(installed)
	.venv/bin/python -m util.analysis$(call flag,--data-dir,$(DATA_DIR))

##   report           results/report.html: one page on all runs, with these figures, tables and samples inside
report: figures
	.venv/bin/python -m util.page

##   timing           times 100 generator updates by method, n_dis 5, for the figures: results/timing.csv (the paper's
##                    Figure 10). PROFILE DATASET MODEL SETTING DEVICE ENGINE
timing: $(installed)
	.venv/bin/python -m benchmarks.methods$(call flag,--profile,$(PROFILE))$(call flag,--dataset,$(DATASET))$(call flag,--model,$(MODEL))$(call flag,--setting,$(SETTING))$(call flag,--device,$(DEVICE))$(call flag,--engine,$(ENGINE))

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

##   test-plans       has cuDNN plan every layer of the networks for GPUs that it is told of, without one, in an
##                    environment of its own (.venv-plans, 2 GB). gcc makes stand-ins for the driver
test-plans: .venv-plans/.installed
	.venv-plans/bin/python -m pytest -rs tests/plans

##   gpu-check        on a machine with a GPU: its tests, then how long an iteration takes, into results/gpu-step.txt;
##                    TORCH=1 compares with PyTorch (in .venv-torch). Where all is installed: python -m pytest -rs
##                    tests/gpu; python -m benchmarks.gpu_step --out results/gpu-step.txt
with_torch := $(filter-out 0 no none,$(strip $(TORCH)))
gpu_check := $(if $(with_torch),.venv-torch,.venv)
gpu-check: $(if $(with_torch),.venv-torch/.installed-$(cuda),.venv/.tools-installed)
	status=0; $(gpu_check)/bin/python -m pytest -rs tests/gpu || status=$$?; \
	$(gpu_check)/bin/python -m benchmarks.gpu_step$(call flag,--device,$(DEVICE)) --out results/gpu-step.txt && exit $$status

##   parity           compares network and metrics with torch-fidelity's, and training steps with PyTorch's, in an
##                    environment with PyTorch (.venv-parity)
parity: .venv-parity/.installed
	DATA_DIR=$(call quote,$(DATA_DIR)) .venv-parity/bin/python -m pytest -rs tests/parity

##   cpu-benchmark    times training steps on the CPU: stock Chainer, the engines and PyTorch (.venv-parity)
cpu-benchmark: .venv-parity/.installed
	.venv-parity/bin/python -m benchmarks.cpu_step

##   lint             ruff
lint: .venv/.tools-installed
	.venv/bin/python -m ruff check .

##   clean            removes environments, builds and caches; nothing in results/
clean:
	rm -rf .venv .venv-kernels .venv-plans .venv-parity .venv-torch build dist *.egg-info .coverage .coverage.* .hypothesis .pytest_cache .ruff_cache
	find . \( -path ./results -o -path ./.git \) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
	@echo 'results/ was left alone'

##
## Variables of runs, each a flag of train.py
##   PROFILE DATASET MODEL METHOD SETTING PROTOCOL   names of rows in configs/*.yml
##   ENGINE                                 what computes: auto; on a CPU stock, numpy, onednn ("make onednn"); on a GPU
##                                          stock, cudnn, cudnn-bf16, cudnn-fp32
##   CAPTURE                                auto: on a GPU each iteration is one CUDA graph, if the engine allows it; or no
##   SCORER                                 what scores: inception, a classifier that "make scorer" made, or none
##   ITERATIONS SEED DEVICE                 DEVICE: auto, cpu, or the number of a GPU
##   DATA_DIR OUT TAG                       folders: the data set's, the run's; TAG is added to the run's default name
##   PROBE                                  generator updates between two looks at D, for "make figures"; 0: none
##   TENSORBOARD                            1: writes for TensorBoard, too, into the run's tensorboard/
##   SET                                    single keys: SET="setting.n_dis=1 method.n_power_iteration=2"
## and PYTHON, the interpreter that .venv is made with: 3.10 to 3.13, by default the first found.
##
## make takes all but CUDA from the environment, too. A finished run is not repeated, and an unfinished one is resumed.
## The number of threads can change the last bits of a result: to finish a run exactly as it began, keep it. Sweeps on a
## CPU have one thread a run, unless OMP_NUM_THREADS says otherwise.

# An environment: its folder, what pip is to install, the stamp that says so, and what the stamp depends on.
$(installed): setup.py constraints.txt
	@echo 'making .venv, CUDA $(cuda) ($(why))'
	@$(make-environment) .venv '.$(addprefix [cuda,$(addsuffix ],$(filter-out none,$(cuda))))' $@ $^

.venv/.tools-installed: setup.py constraints.txt $(installed)
	@$(make-environment) .venv '.[test]' $@ $^

.venv/.onednn-installed: setup.py constraints.txt $(installed)
	@$(make-environment) .venv '.[onednn]' $@ $^

.venv/.tensorboard-installed: setup.py constraints.txt $(installed)
	@$(make-environment) .venv '.[tensorboard]' $@ $^

.venv-kernels/.installed: setup.py constraints.txt
	@$(make-environment) .venv-kernels '.[test,kernels]' $@ $^

.venv-plans/.installed: setup.py constraints.txt
	@$(make-environment) .venv-plans '.[test,plans]' $@ $^

.venv-torch/.installed-$(cuda): setup.py constraints.txt
	@$(make-environment) .venv-torch '.[test,parity,cuda$(cuda)]' $@ $^

.venv-parity/.installed: setup.py constraints.txt
	@$(make-environment) .venv-parity '.[test,parity,onednn]' $@ $^

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
$(installed) .venv/.tools-installed .venv/.onednn-installed .venv/.tensorboard-installed .venv-kernels/.installed \
    .venv-plans/.installed .venv-parity/.installed .venv-torch/.installed-$(cuda): export MAKE_ENVIRONMENT := $(MAKE_ENVIRONMENT)
