# What syft's messages look like on the wire; `gridup_node.guard.wire` reads them with it.
@0xb1c6d0c0a9d1e7f3;

struct Object {
    # One value. Either fields, or a blob of its own form, which `name` tells.
    fieldNames @0 :List(Text);
    fieldValues @1 :List(List(Data));
    blob @2 :List(Data);
    name @3 :Text;
    version @4 :Int32;
}

struct Sequence {
    values @0 :List(List(Data));
}

struct Pairs {
    keys @0 :List(Data);
    values @1 :List(List(Data));
}
