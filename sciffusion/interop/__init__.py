"""The ways in and out: published checkpoints, other libraries' loops, the Hub.

``sciffusion.interop.diffusers`` reads models, autoencoders and schedulers of that library and makes ours drop-ins for
its pipelines; ``sciffusion.interop.hub`` sends models to the Hugging Face Hub and fetches them. Nothing here is needed
by the rest of the library, and each needs its extra only when it is used.
"""
