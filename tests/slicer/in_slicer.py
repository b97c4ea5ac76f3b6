"""What Slicer's own core does with files; run by its Python, which has nothing of this package.

python in_slicer.py read FILE OUT.npz          what Slicer sees in a file
python in_slicer.py write VOLUME OUT.seg.nrrd  a segmentation with overlapping segments
"""

import json
import sys

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support


def matrix(of):
    return [[of.GetElement(row, column) for column in range(4)] for row in range(4)]


def pixels(image):
    x, y, z = image.GetDimensions()
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(z, y, x)


def added(scene, node, storage, path):
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(path)
    node.SetAndObserveStorageNodeID(storage.GetID())
    return storage


def volume(scene, path, labels=False):
    node = slicer.vtkMRMLLabelMapVolumeNode() if labels else slicer.vtkMRMLScalarVolumeNode()
    assert added(scene, node, slicer.vtkMRMLVolumeArchetypeStorageNode(), path).ReadData(node)
    return node


def read(path, out):
    scene = slicer.vtkMRMLScene()
    if not path.endswith(".seg.nrrd"):
        node = volume(scene, path, labels="mask" in path)
        to_ras = vtk.vtkMatrix4x4()
        node.GetIJKToRASMatrix(to_ras)
        np.savez(out, array=pixels(node.GetImageData()), to_ras=matrix(to_ras))
        return
    node = slicer.vtkMRMLSegmentationNode()
    assert added(scene, node, slicer.vtkMRMLSegmentationStorageNode(), path).ReadData(node)
    segmentation = node.GetSegmentation()
    found, arrays = [], {}
    for n in range(segmentation.GetNumberOfSegments()):
        key = segmentation.GetNthSegmentID(n)
        segment = segmentation.GetSegment(key)
        image, to_ras = slicer.vtkOrientedImageData(), vtk.vtkMatrix4x4()
        node.GetBinaryLabelmapRepresentation(key, image)
        image.GetImageToWorldMatrix(to_ras)
        arrays[f"array{n}"] = pixels(image)
        found.append(
            {
                "name": segment.GetName(),
                "colour": [round(255 * part) for part in segment.GetColor()],
                "value": segment.GetLabelValue(),
                "to_ras": matrix(to_ras),
                "start": image.GetExtent()[::2],
            }
        )
    np.savez(out, segments=json.dumps(found), **arrays)


def write(path, out):
    scene = slicer.vtkMRMLScene()
    ct = volume(scene, path)
    node = slicer.vtkMRMLSegmentationNode()
    storage = added(scene, node, slicer.vtkMRMLSegmentationStorageNode(), out)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(ct)
    to_ras = vtk.vtkMatrix4x4()
    ct.GetIJKToRASMatrix(to_ras)
    names = (("Leber – 肝", (1, 0, 0.5)), ("spleen", (0, 0.5, 1)))
    for n, (name, colour) in enumerate(names):
        image = slicer.vtkOrientedImageData()
        image.DeepCopy(ct.GetImageData())
        image.SetImageToWorldMatrix(to_ras)
        values = np.zeros_like(pixels(image))
        values[1:3, 4 + 8 * n : 16 + 8 * n, 5:20] = 1
        scalars = numpy_support.numpy_to_vtk(values.ravel().astype(np.uint8), deep=True)
        image.GetPointData().SetScalars(scalars)
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.SetColor(colour)
        segment.AddRepresentation("Binary labelmap", image)
        node.GetSegmentation().AddSegment(segment)
    assert storage.WriteData(node)


{"read": read, "write": write}[sys.argv[1]](*sys.argv[2:])
