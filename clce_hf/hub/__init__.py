"""What is pushed to the Hugging Face Hub: `PublishingTrainer`, the model card and its results.

It knows no contrastive loss and draws nothing: `CLCETrainer` derives from it.
"""
