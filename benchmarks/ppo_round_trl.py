"""TRL's side of ppo_round.py, in an environment of its own.

A line on stdin starts a round, a line on stdout ends it.

Called as `python ppo_round_trl.py DIR WORK`: where the models lie, and `Work` as JSON.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from ppo_work import ALPHA, MATRICES, RANK, Clock, Work, ending
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


def trl_side(work: Work, directory: Path) -> None:
    """Trains until stdin closes."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # the Trainer prints
    import peft
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl.experimental.ppo import PPOConfig, PPOTrainer  # pyright: ignore

    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(directory / "policy", padding_side="left")
    prompts = json.loads((directory / "prompts.json").read_text(encoding="utf-8"))
    chats = [[{"role": "user", "content": prompt}] for prompt in prompts]
    encoded = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=False)
    lora: dict[str, Any] = {"r": RANK, "lora_alpha": ALPHA, "target_modules": MATRICES}
    critic = AutoModelForSequenceClassification.from_pretrained(directory / "policy", num_labels=1)
    critic = peft.inject_adapter_in_model(peft.LoraConfig(**lora), critic)
    critic.score.requires_grad_(True)
    policy: Any = AutoModelForCausalLM.from_pretrained(directory / "policy")
    ending(policy, work)

    class Turns(TrainerCallback):
        """Waits for its turn before each round."""

        def wait(self) -> None:
            if not sys.stdin.readline():
                sys.exit(0)
            self.updates, self.clock = 0, Clock()

        def count(self, *_: Any) -> None:
            self.updates += 1

        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            self.wait()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            found = self.clock.read() | {"updates": self.updates}
            assert state.log_history[-1]["val/num_eos_tokens"] == work.rollouts
            answers.write(json.dumps(found) + "\n")
            self.wait()

    turns = Turns()
    trainer = PPOTrainer(
        PPOConfig(
            output_dir=str(directory / "out"), use_cpu=True, bf16=False, report_to=[],
            gradient_checkpointing=False, disable_tqdm=True, save_strategy="no",
            learning_rate=1e-5, vf_coef=0.5, temperature=1.0, num_sample_generations=0,
            total_episodes=work.rollouts * 10_000,  # until stdin closes
            per_device_train_batch_size=work.batch,
            gradient_accumulation_steps=work.rollouts // work.batch,
            num_mini_batches=work.rollouts // work.batch, num_ppo_epochs=work.passes,
            local_rollout_forward_batch_size=work.rollouts, response_length=work.answer_tokens,
        ),
        tokenizer,
        model=policy,
        ref_model=None,  # the policy without its adapter
        reward_model=AutoModelForSequenceClassification.from_pretrained(directory / "reward"),
        train_dataset=Dataset.from_dict({"input_ids": encoded[: work.rollouts]}),
        value_model=critic,
        callbacks=[turns],
        peft_config=peft.LoraConfig(**lora, task_type="CAUSAL_LM"),
    )  # fmt: skip

    trainer.optimizer.optimizer.register_step_post_hook(turns.count)
    trainer.train()


if __name__ == "__main__":
    trl_side(Work(**json.loads(sys.argv[2])), Path(sys.argv[1]))
