# Sets MODELS_DIR to the environment's KVLANE_MODELS where it is set, and model to the checkpoint there, or to nothing: the
# test is skipped then.
if(DEFINED ENV{KVLANE_MODELS})
  set(MODELS_DIR $ENV{KVLANE_MODELS})
endif()
set(model ${MODELS_DIR}/stories260K.bin)
if(NOT EXISTS ${model})
  message("skipped: no model at ${model}; examples/llama2/README.md says where one can be had")
  set(model "")
endif()
