"""The data sets that can be prepared, by the names that the command takes."""

from util.prepare import btmd, busi, chestxray2017, deeplesion, ham10000, messidor2
from util.prepare.record import DataSet

DATA_SETS: dict[str, DataSet] = {
    "messidor2": messidor2.DATA_SET,
    "btmd": btmd.DATA_SET,
    "ham10000": ham10000.DATA_SET,
    "deeplesion": deeplesion.DATA_SET,
    "chestxray2017": chestxray2017.DATA_SET,
    "busi": busi.DATA_SET,
}
