from __future__ import annotations

import torch

from uniformer_pose.benchmarks.roofline import count_work, device_peak, gpu_peak, measured_processor_peak


def test_a_matrix_product_is_two_operations_a_cell_and_moves_three_matrices() -> None:
    left, right = torch.rand(8, 16), torch.rand(16, 4)

    work = count_work(lambda: left @ right)

    assert work.flops == 2 * 8 * 16 * 4
    assert work.bytes_moved == 4 * (8 * 16 + 16 * 4 + 8 * 4)


def test_a_view_moves_nothing() -> None:
    matrix = torch.rand(8, 16)

    assert count_work(lambda: matrix.t().reshape(4, 4, 8)[:2]).bytes_moved == 0


def test_work_in_place_moves_what_it_reads_and_writes() -> None:
    matrix = torch.rand(8, 16)

    assert count_work(lambda: matrix.add_(1)).bytes_moved == 2 * matrix.nbytes


def test_the_backward_pass_counts_too() -> None:
    left, right = torch.rand(8, 16, requires_grad=True), torch.rand(16, 4, requires_grad=True)

    assert count_work(lambda: (left @ right).sum().backward()).flops == 3 * 2 * 8 * 16 * 4


def test_a_gpu_is_known_by_a_part_of_its_name_and_the_more_special_name_comes_first() -> None:
    sxm, pcie = gpu_peak("NVIDIA H100 80GB HBM3", "bf16"), gpu_peak("NVIDIA H100 PCIe", "bf16")

    assert sxm is not None
    assert pcie is not None
    assert (sxm.flops_per_second, sxm.bytes_per_second) == (989e12, 3.35e12)
    assert pcie.flops_per_second == 756e12


def test_what_is_not_in_the_table_has_no_peak() -> None:
    assert gpu_peak("Some GPU of 2040", "bf16") is None
    assert gpu_peak("Tesla T4", "bf16") is None
    assert device_peak(torch.device("cpu"), "bf16") is None


def test_the_processor_s_peak_is_measured_once() -> None:
    peak = device_peak(torch.device("cpu"), "fp32")

    assert peak is not None
    assert peak is measured_processor_peak(torch.get_num_threads())
    assert 1e8 < peak.flops_per_second < 1e14
    assert 1e8 < peak.bytes_per_second < 1e13
