"""The documents' own code, as it stands there, its lost line breaks and indentation restored.

Where a document shows one program in pieces, the pieces follow each other. Long lines are wrapped.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from helpers.commands import command
from torch.utils.data import TensorDataset

from twinstep.problems.datasets import Images

GRADIENT_UPDATE = """\
import torch
import torch.nn as nn
# 定义一个简单的线性模型
model = nn.Linear(10, 1)
# 输入数据
input_data = torch.randn(5, 10)
# 前向传播
output = model(input_data)
# 真实标签
target = torch.randn(5, 1)
# 计算均方误差损失
criterion = nn.MSELoss()
loss = criterion(output, target)
# 反向传播
loss.backward()
# 定义优化器
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
# 梯度清零
optimizer.zero_grad()
# 反向传播
loss.backward()
# 参数更新
optimizer.step()
"""

LINEAR_REGRESSION = """\
import torch
import torch.nn as nn
# 生成随机数据
x = torch.linspace(0, 10, 100).reshape(-1, 1)
y = 2 * x + 1 + torch.randn(100, 1) * 2 # y = 2x + 1 + 噪声
# 定义线性模型
model = nn.Linear(1, 1)
# 定义损失函数
criterion = nn.MSELoss()
# 定义优化器
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
# 训练100次
for epoch in range(100):
    # 前向传播
    output = model(x)
    # 计算损失
    loss = criterion(output, y)
    # 反向传播
    optimizer.zero_grad()
    loss.backward()
    # 参数更新
    optimizer.step()
    # 打印损失
    if (epoch + 1) % 10 == 0:
        print(f'Epoch [{epoch+1}/100], Loss: {loss.item():.4f}')
"""

MNIST_RNN = """\
import torch
import torch.nn as nn
import torch.optim as optim
from torchvision import datasets, transforms
# 定义超参数
batch_size = 64
learning_rate = 0.01
epochs = 10
# 加载MNIST数据集
train_dataset = datasets.MNIST(root='./data', train=True, transform=transforms.ToTensor(),
                               download=True)
test_dataset = datasets.MNIST(root='./data', train=False, transform=transforms.ToTensor())
# 定义数据加载器
train_loader = torch.utils.data.DataLoader(dataset=train_dataset, batch_size=batch_size,
                                           shuffle=True)
test_loader = torch.utils.data.DataLoader(dataset=test_dataset, batch_size=batch_size,
                                          shuffle=False)
# 定义循环神经网络模型
class RNN(nn.Module):
    def __init__(self, input_size, hidden_size, num_classes):
        super(RNN, self).__init__()
        self.hidden_size = hidden_size
        self.rnn = nn.RNN(input_size, hidden_size, batch_first=True)
        self.fc = nn.Linear(hidden_size, num_classes)
    def forward(self, x):
        h0 = torch.zeros(1, x.size(0), self.hidden_size).to(device)
        out, _ = self.rnn(x, h0)
        out = self.fc(out[:, -1, :])
        return out
# 定义设备
device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
# 实例化模型并移动到设备上
model = RNN(input_size=28, hidden_size=128, num_classes=10).to(device)
# 定义损失函数和优化器
criterion = nn.CrossEntropyLoss()
optimizer = optim.Adam(model.parameters(), lr=learning_rate)
# 训练模型
for epoch in range(epochs):
    for i, (images, labels) in enumerate(train_loader):
        # 将数据移动到设备上
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        # 前向传播
        outputs = model(images)
        loss = criterion(outputs, labels)
        # 反向传播和优化
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        # 每100个批次打印一次训练信息
        if (i+1) % 100 == 0:
            print('Epoch [{}/{}], Step [{}/{}], Loss: {:.4f}'.format(
                epoch+1, epochs, i+1, len(train_loader), loss.item()))
# 测试模型
model.eval()
with torch.no_grad():
    correct = 0
    total = 0
    for images, labels in test_loader:
        # 将数据移动到设备上
        images = images.reshape(-1, 28, 28).to(device)
        labels = labels.to(device)
        # 前向传播
        outputs = model(images)
        _, predicted = torch.max(outputs.data, 1)
        total += labels.size(0)
        correct += (predicted == labels).sum().item()
    print('Test Accuracy of the model on the 10000 test images: {} %'.format(
        100 * correct / total))
"""

SGD_LINEAR_MODEL = """\
import torch
import torch.nn as nn
import torch.optim as optim
import numpy as np
# 随机生成一些简单的线性数据
np.random.seed(42)
X = np.random.rand(100, 1)  # 100个输入样本
y = 2 * X + 1 + 0.1 * np.random.randn(100, 1)  # 添加随机噪声的目标输出
# 将数据转换为 PyTorch 张量
X_tensor = torch.tensor(X, dtype=torch.float32)
y_tensor = torch.tensor(y, dtype=torch.float32)
# 定义线性模型
class LinearModel(nn.Module):
    def __init__(self):
        super(LinearModel, self).__init__()
        self.linear = nn.Linear(1, 1)  # 输入特征数为1,输出特征数为1
    def forward(self, x):
        return self.linear(x)
# 创建模型实例和优化器
model = LinearModel()
criterion = nn.MSELoss()  # 使用均方误差损失函数
optimizer = optim.SGD(model.parameters(), lr=0.01)  # 使用随机梯度下降法
# 进行模型训练
num_epochs = 100
for epoch in range(num_epochs):
    # 清零梯度
    optimizer.zero_grad()
    # 前向传播
    y_pred = model(X_tensor)
    # 计算损失
    loss = criterion(y_pred, y_tensor)
    # 反向传播
    loss.backward()
    # 更新参数
    optimizer.step()
    if (epoch + 1) % 10 == 0:
        print(f'Epoch [{epoch+1}/{num_epochs}], Loss: {loss.item():.4f}')
# 打印训练后的模型参数
print("训练后的模型参数:", model.state_dict())
"""

ZERO_GRAD = """\
import torch
import torch.nn as nn
import torch.optim as optim
# 定义一个简单的模型
model = nn.Sequential(
    nn.Linear(10, 5),
    nn.ReLU(),
    nn.Linear(5, 1)
)
# 定义损失函数
loss_fn = nn.MSELoss()
# 定义优化器
optimizer = optim.SGD(model.parameters(), lr=0.01)
# 假设有一些训练数据
inputs = torch.randn(5, 10)
targets = torch.randn(5, 1)
# 训练循环
for epoch in range(5):
    # 清除梯度
    optimizer.zero_grad()
    # 前向传播
    outputs = model(inputs)
    # 计算损失
    loss = loss_fn(outputs, targets)
    # 反向传播
    loss.backward()
    # 参数更新
    optimizer.step()
    # 打印损失
    print(f'Epoch {epoch+1}, Loss: {loss.item()}')
"""

BACKPROPAGATION = """\
import torch
import torch.nn as nn
class SimpleNetwork(nn.Module):
    def __init__(self):
        super(SimpleNetwork, self).__init__()
        self.layer1 = nn.Linear(10, 20) # 输入层到隐藏层
        self.relu = nn.ReLU() # 激活函数
        self.layer2 = nn.Linear(20, 1) # 隐藏层到输出层
    def forward(self, x):
        x = self.layer1(x)
        x = self.relu(x)
        x = self.layer2(x)
        return x
# 初始化模型
model = SimpleNetwork()
# 损失函数和优化器
criterion = nn.MSELoss() # 均方误差
optimizer = torch.optim.SGD(model.parameters(), lr=0.01) # SGD优化器
# 示例数据
inputs = torch.randn(5, 10) # 5个样本,每个样本10个特征
targets = torch.randn(5, 1) # 真实值
# 前向传播
outputs = model(inputs)
loss = criterion(outputs, targets)
# 反向传播
optimizer.zero_grad() # 清空之前的梯度
loss.backward() # 自动计算所有梯度
optimizer.step() # 参数更新
print("Loss:", loss.item())
"""

BACKWARD = "# 反向传播\nloss.backward()\n"


@dataclass(frozen=True)
class Case:
    """A document's code, the changes that it names or needs, and the spec's fields that match."""

    example: str
    code: str
    fields: dict[str, Any] = field(default_factory=dict)
    prints: bool = True

    def text(self, dtype: str) -> str:
        """The code for a run in `dtype`, which document 002 writes out."""
        return self.code.replace("dtype=torch.float32", f"dtype=torch.{dtype}")


CASES = [
    # as printed it calls backward twice on one graph, which is refused: once is what it can mean
    Case("gradient_update", GRADIENT_UPDATE.replace(BACKWARD, "", 1), prints=False),
    Case("linear_regression", LINEAR_REGRESSION),
    Case("linear_regression_l1", LINEAR_REGRESSION.replace("nn.MSELoss", "nn.L1Loss")),
    Case("linear_regression_adam", LINEAR_REGRESSION.replace("optim.SGD", "optim.Adam")),
    Case("sgd_linear_model", SGD_LINEAR_MODEL),
    Case("zero_grad", ZERO_GRAD),
    Case("without_zero_grad", ZERO_GRAD.replace("    optimizer.zero_grad()\n", "")),
    Case("backpropagation", BACKPROPAGATION),
]
RNN_CASE = Case(
    "mnist_rnn",
    # two epochs of 15 batches, a line every 5; its "10000" is the number of MNIST's test images
    MNIST_RNN.replace("epochs = 10", "epochs = 2")
    .replace("% 100 ==", "% 5 ==")
    .replace("the 10000 test", "the 40 test"),
    {"epochs": 2, "log_every": 5},
)


class Ran(NamedTuple):
    """What a document's code left: losses (T,), parameters by name, all that it printed."""

    losses: np.ndarray
    params: dict[str, np.ndarray]
    lines: list[str]


def run_document(code: str, seed: int, dtype: str, **names: Any) -> Ran:
    """Runs a document's code with the seed before it and `dtype` as default.

    names: what a changed code calls beside the document's own
    """
    losses: list[float] = []
    backward = torch.Tensor.backward

    def noting(loss: torch.Tensor, *args: Any, **options: Any) -> None:
        losses.append(loss.item())
        backward(loss, *args, **options)

    numbers = np.random.get_state()
    torch.set_default_dtype(getattr(torch, dtype))
    code = f"import torch; torch.manual_seed({seed})\n{code}"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "backward", noting)
        try:
            said = command(call=lambda _: exec(code, names))
        finally:
            np.random.set_state(numbers)
    params = {name: tensor.numpy() for name, tensor in names["model"].state_dict().items()}
    return Ran(np.array(losses), params, said.out.splitlines())


def torchvision(images: Images) -> Any:
    """What the document asks of torchvision, these images in its hands."""

    def to_tensor(images: np.ndarray) -> torch.Tensor:
        """(N, 28, 28) bytes -> (N, 1, 28, 28), as torchvision divides them."""
        return torch.tensor(images)[:, None].to(torch.get_default_dtype()).div(255)

    def mnist(root: str, train: bool, transform: Any, download: bool = False) -> TensorDataset:
        part = "train" if train else "test"
        samples, labels = (getattr(images, f"{part}_{kind}") for kind in ("images", "labels"))
        return TensorDataset(transform(samples), torch.tensor(labels))

    return SimpleNamespace(
        datasets=SimpleNamespace(MNIST=mnist),
        transforms=SimpleNamespace(ToTensor=lambda: to_tensor),
    )
