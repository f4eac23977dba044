"""The frame of every page that the package writes: one file, no network, light and dark, with the parts all share."""

from jaxcnnbp.pages.document import document as document
from jaxcnnbp.pages.document import in_frame as in_frame
from jaxcnnbp.pages.document import json_block as json_block
from jaxcnnbp.pages.document import part as part
from jaxcnnbp.pages.document import plain as plain
from jaxcnnbp.pages.environment import environment as environment
from jaxcnnbp.pages.pixels import packed as packed
