import time
import test_holder_pages as t
from changeover.store.holders import Holders
from changeover.store.pins import Pins
async def test_measure(store):
    t.THREADS=100_000
    await t.fill(store)
    await store.database.write(lambda c: c.execute("ANALYZE threads") and None)
    h=Holders(store.database,time.time)
    xs=[]; 
    for _ in range(8):
        a=time.perf_counter(); p=await h.page("v1"); xs.append((time.perf_counter()-a)*1e3)
    ys=[]
    for _ in range(8):
        a=time.perf_counter(); v=await store.versions.get("v1"); ys.append((time.perf_counter()-a)*1e3)
    zs=[]
    for _ in range(4):
        a=time.perf_counter(); v=await Pins(store.database,time.time).list(version="v1",limit=100); zs.append((time.perf_counter()-a)*1e3)
    print(type(store.database).__name__, p.count, "page", min(xs), max(xs), "version", min(ys), max(ys), "list", min(zs), max(zs))
