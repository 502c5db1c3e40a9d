"""Files of microscopes that no library writes, as small as they can be, after what nd2 and liffile read."""

import struct

MAGIC, RESERVED = 0x0ABECEDA, 4072  # bytes for the name of a chunk, so that data begin at a page of the disk


def _chunk(name, data):
    name = name.ljust(RESERVED, b"\0")
    return struct.pack("<IIQ", MAGIC, len(name), len(data)) + name + data


def _xml(values):
    """Return nested dictionaries as CLxVariant XML."""
    kinds = {bool: "bool", int: "lx_int32", float: "double", str: "CLxStringW"}

    def tag(name, value):
        if isinstance(value, dict):
            return f"<{name}>{''.join(tag(k, v) for k, v in value.items())}</{name}>"
        return f'<{name} runtype="{kinds[type(value)]}" value="{value}"/>'

    return f"<variant>{''.join(tag(k, v) for k, v in values.items())}</variant>".encode()


def _loop(loops):
    kind, parameters = loops[0]
    below = {"ppNextLevelEx": {"no_name": _loop(loops[1:])}} if loops[1:] else {}
    return {"eType": kind, "uLoopPars": parameters, **below}


def write_nd2(path, data, names=("DAPI", "GFP"), positions=("left", "right"), step=0.5, pixel=0.25, period=2000.0):
    """Write a (P, T, Z, C, Y, X) array of 16 bits as an ND2 file of version 2, planes interleaved."""
    count, times, depth, channels, height, width = data.shape
    points = {f"p{i}": {"dPosX": float(i), "dPosName": name} for i, name in enumerate(positions[:count])}
    loops = [
        (2, {"Points": points}),
        (1, {"uiCount": times, "dStart": 0.0, "dPeriod": period, "dDuration": 1.0}),
        (4, {"uiCount": depth, "dZStep": step}),
    ]
    plane = {"uiCompCount": 1, "uiColor": 255, "pFluorescentProbe": {"m_sName": "dye"}}
    planes = {f"a{i}": {"sDescription": name, **plane} for i, name in enumerate(names[:channels])}
    frames = data.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    attributes = {"uiWidth": width, "uiWidthBytes": 2 * width * channels, "uiHeight": height, "uiComp": channels}
    attributes |= {"uiBpcInMemory": 16, "uiBpcSignificant": 16, "uiSequenceCount": len(frames)}
    picture = {"sPicturePlanes": {"uiCount": channels, "sPlaneNew": planes}, "dCalibration": pixel, "bCalibrated": True}
    chunks = {b"ImageAttributes!": _xml(attributes), b"ImageMetadata!": _xml(_loop(loops))}
    chunks[b"ImageMetadataSeq|0!"] = _xml(picture)
    chunks |= {f"ImageDataSeq|{i}!".encode(): bytes(8) + frame.tobytes() for i, frame in enumerate(frames)}
    start = b"ND2 FILE SIGNATURE CHUNK NAME01!" + b"Ver2.1".ljust(64, b"\0")
    with path.open("wb") as file:
        file.write(struct.pack("<IIQ", MAGIC, 32, 64) + start)
        listed = b""
        for name, content in chunks.items():
            listed += name + struct.pack("<QQ", file.tell(), len(content))
            file.write(_chunk(name, content))
        at = file.tell()
        file.write(_chunk(b"ND2 FILEMAP SIGNATURE NAME 0001!", listed + b"ND2 CHUNK MAP SIGNATURE 0000001!" + bytes(8)))
        file.write(b"ND2 CHUNK MAP SIGNATURE 0000001!" + struct.pack("<Q", at))


def _text(text):
    return struct.pack("<BI", 0x2A, len(text)) + text.encode("utf-16-le")


def _block(body):
    return struct.pack("<II", 0x70, len(body)) + body


def write_lif(path, images, pixel=2.5e-7, step=1e-6, names=("Green", "Red")):
    """Write (C, Z, Y, X) arrays of 16 bits as images of a LIF file of version 2."""
    elements, blocks = "", b""
    for number, (name, data) in enumerate(images.items()):
        channels, depth, height, width = data.shape
        sizes, steps = (width, height, depth), (2, 2 * width, 2 * width * height * channels)
        described = "".join(
            f'<ChannelDescription DataType="0" ChannelTag="0" Resolution="16" NameOfMeasuredQuantity="" Min="0" '
            f'Max="1" Unit="" LUTName="{names[c]}" IsLUTInverted="0" BytesInc="{2 * width * height * c}" BitInc="0"/>'
            for c in range(channels)
        )
        dimensions = "".join(
            f'<DimensionDescription DimID="{i + 1}" NumberOfElements="{n}" Origin="0" '
            f'Length="{(n - 1) * (pixel, pixel, step)[i]}" Unit="m" BitInc="0" BytesInc="{inc}"/>'
            for i, (n, inc) in enumerate(zip(sizes, steps, strict=True))
        )
        elements += (
            f'<Element Name="{name}"><Data><Image><ImageDescription><Channels>{described}</Channels><Dimensions>'
            f"{dimensions}</Dimensions></ImageDescription></Image></Data>"
            f'<Memory Size="{data.nbytes}" MemoryBlockID="MemBlock_{number}"/></Element>'
        )
        head = struct.pack("<BQ", 0x2A, data.nbytes) + _text(f"MemBlock_{number}")
        blocks += _block(head) + data.transpose(1, 0, 2, 3).tobytes()
    xml = (
        '<LMSDataContainerHeader Version="2"><Element Name="project"><Children>'
        f"{elements}</Children></Element></LMSDataContainerHeader>"
    )
    path.write_bytes(_block(_text(xml)) + blocks)
