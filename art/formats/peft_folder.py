"""The files of a PEFT adapter folder, as ``PeftModel.save_pretrained`` names them."""

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
