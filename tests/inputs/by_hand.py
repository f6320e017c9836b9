"""Files of short formats, made by hand."""

from __future__ import annotations

import io
import zipfile


def pdf(pages=1, text="Mueller owes 12 euros"):
    """A PDF by hand: each page shows the same text."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "", "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>"]
    stream = f"BT /F1 12 Tf 72 720 Td ({text}) Tj ET"
    objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
    first = len(objects) + 1
    page = "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Contents 4 0 R/Resources<</Font<</F1 3 0 R>>>>>>"
    objects += [page] * pages
    kids = " ".join(f"{first + number} 0 R" for number in range(pages))
    objects[1] = f"<</Type/Pages/Count {pages}/Kids[{kids}]>>"
    out, offsets = io.BytesIO(), []
    out.write(b"%PDF-1.4\n")
    for number, content in enumerate(objects, 1):
        offsets.append(out.tell())
        out.write(f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1"))
    start = out.tell()
    out.write(f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n".encode())
    out.writelines(f"{offset:010} 00000 n \n".encode() for offset in offsets)
    out.write(f"trailer<</Size {len(objects) + 1}/Root 1 0 R>>\nstartxref\n{start}\n%%EOF".encode())
    return out.getvalue()


def zipped(files, **options):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()
