// FB Segment Folder, through a warm worker of Appose; a file that cannot be read does not stop the others.
// run("FB Segment Folder Appose", "model=[nuclei.zip] folder=[images] destination=[results] output=Segmentation filter=*.tif device=auto tile=0 overwrite=false");
#@ String (label="Model", description="Path of a package (.zip), forest (.forest) or ilastik project (.ilp)", required=false, persist=false, value="") model
#@ String (label="Folder", required=false, persist=false, value="") folder
#@ String (label="Destination", description="Made if it is not there", required=false, persist=false, value="") destination
#@ String (label="Output", choices={"Segmentation", "Probabilities", "Uncertainty"}, persist=false, value="Segmentation") output
#@ String (label="Filter", description="Which files, such as *_DAPI.tif; all images by default", required=false, persist=false, value="") filter
#@ String (label="Device", choices={"auto", "cpu", "cuda"}, persist=false, value="auto") device
#@ Integer (label="Tile", persist=false, value=0) tile
#@ Boolean (label="Overwrite", persist=false, value=false) overwrite

def root = new File(System.getProperty("plugins.dir", "."))
def plugins = ij.IJ.getDirectory("plugins") ?: new File(root, "plugins").isDirectory() ? new File(root, "plugins") : root // headless there are no menus
def file = new File(new File(plugins.toString()), "ForestBridge/lib/ForestBridge.groovy")
def key = "forestbridge.library:" + file.lastModified() // compiled once in the life of this Fiji
def library = System.getProperties().get(key)
if (library == null) {
    try {
        library = new GroovyClassLoader(getClass().getClassLoader()).parseClass(file).getDeclaredConstructor().newInstance()
    } catch (org.codehaus.groovy.control.CompilationFailedException | FileNotFoundException | NoClassDefFoundError e) {
        ij.IJ.log(e.toString())
        ij.IJ.error("ForestBridge", "expected Appose in this Fiji, and the commands installed by forestbridge fiji install, found neither or one; the macro command without Appose in its name needs no Appose")
        return
    }
    library.folder = file.getParentFile()
    System.getProperties().put(key, library)
}
library.segmentFolder(model: model, folder: folder, destination: destination, output: output, filter: filter, device: device, tile: tile, overwrite: overwrite)
