// FB Open Example: an image, and a label image with strokes for each class, to try things on.
// run("FB Open Example", "example=tissue");
//   example=  tissue (a stained section, RGB), cells (synthetic, 16 bit) or stack (synthetic, 12 planes)
// Opens "tissue.tif" and "labels of tissue.tif".
requires("1.53t");
var lib = libFolder();
var job = getDirectory("temp") + "forestbridge-" + d2s(getTime(), 0) + "-" + d2s(floor(random * 1e9), 0);
var wasBatch = is("Batch Mode");
Dialog.create("FB Open Example");
Dialog.addChoice("Example", newArray("tissue", "cells", "stack"), "tissue");
Dialog.show();
example = Dialog.getChoice();

if (!wasBatch)
    setBatchMode(true);
reply = check(runMacro(lib + "call.ijm", lib + "\n" + job + "\nexample\n" + example + "\n-o\n" + job));
open(job + File.separator + example + "_labels.tif");
selectImage(example + "_labels.tif");
rename("labels of " + example + ".tif");
open(job + File.separator + example + ".tif");
finish("status=ok");

function check(reply) {
    if (!startsWith(reply, "status=ok"))
        finish(reply);
    return reply;
}

function finish(reply) {
    runMacro(lib + "end.ijm", lib + "\n" + job + "\n" + d2s(wasBatch, 0) + "\n" + reply);
    exit;
}

function libFolder() {
    folder = getDirectory("plugins");
    if (folder == "") { // headless there are no menus, which know it
        folder = call("java.lang.System.getProperty", "plugins.dir", "");
        if (File.isDirectory(folder + File.separator + "plugins"))
            folder = folder + File.separator + "plugins";
        folder = folder + File.separator;
    }
    return folder + "ForestBridge" + File.separator + "lib" + File.separator;
}
