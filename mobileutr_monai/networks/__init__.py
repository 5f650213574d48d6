"""MobileUtr and its weights."""

from mobileutr_monai.networks.cuda_graph import CudaGraphTraining
from mobileutr_monai.networks.fold import fold_network
from mobileutr_monai.networks.mobileutr import VARIANTS, MobileUtr
from mobileutr_monai.networks.weights import convert_official_state_dict, load_weights

__all__ = ["VARIANTS", "CudaGraphTraining", "MobileUtr", "convert_official_state_dict", "fold_network", "load_weights"]
